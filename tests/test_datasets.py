"""Data sets: what is read, and what is said when a file is missing or damaged."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from whetsim import datasets
from whetsim.errors import SampleError, UnknownNameError


def test_digits_split_is_the_documented_one() -> None:
    train, _ = datasets.load("digits", split="train")
    test, labels = datasets.load("digits", split="test")
    assert train.shape == (1437, 8, 8)
    assert test.shape == (360, 8, 8)
    assert test.dtype == np.uint8
    assert test.max() == 16
    assert set(labels.tolist()) == set(range(10))


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_original_files(name: str, data_folder: Path) -> None:
    images, labels = datasets.load(name, data_dir=data_folder)
    assert images.shape == (10000, 28, 28)
    assert images.dtype == np.uint8
    assert np.bincount(labels).min() >= 892
    inside, _ = datasets.load(name, data_dir=data_folder / name)
    np.testing.assert_array_equal(inside, images)


def test_environment_names_the_folder(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHETSIM_DATA", str(data_folder))
    images, labels = datasets.load("mnist", split="train")
    assert len(images) == len(labels) == 60000


def test_damaged_file_is_refused(data_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(data_folder / "mnist", tmp_path / "mnist")
    path = tmp_path / "mnist" / "t10k-images-idx3-ubyte.gz"
    os.chmod(path, 0o644)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(SampleError, match=r"MD5 checksum is .* cut off"):
        datasets.load("mnist", data_dir=tmp_path)


def test_folder_without_the_files(tmp_path: Path) -> None:
    with pytest.raises(SampleError, match=r"has no t10k-images.*--data-dir or WHETSIM_DATA"):
        datasets.load("mnist", data_dir=tmp_path)


def test_unknown_name_is_suggested() -> None:
    with pytest.raises(UnknownNameError, match=r"no data set named 'minst'.*Did you mean 'mnist'"):
        datasets.load("minst")
    with pytest.raises(SampleError, match="no split 'validation'"):
        datasets.load("digits", split="validation")  # type: ignore[arg-type]


def test_failed_download_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pooch = pytest.importorskip("pooch", reason="pooch is not installed")

    def refuse(self: object, file: str) -> str:
        raise OSError("no route\nto host")

    monkeypatch.delenv("WHETSIM_DATA", raising=False)
    monkeypatch.setattr(pooch.Pooch, "fetch", refuse)
    with pytest.raises(SampleError, match=r"download from .* failed") as caught:
        datasets.load("mnist")
    assert "\n" not in str(caught.value)


def test_npz_round_trip(tmp_path: Path) -> None:
    x = np.arange(12, dtype=np.uint8).reshape(3, 4)
    np.savez(tmp_path / "a.npz", x=x, y=[0, 1, 2])
    images, labels = datasets.load(str(tmp_path / "a.npz"))
    np.testing.assert_array_equal(images, x)
    assert labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"x": np.zeros(3)}, "array 'y' is missing"),
        ({"x": np.zeros((3, 2)), "y": np.zeros(2, int)}, "one label a sample"),
        ({"x": np.zeros((2, 2)), "y": np.zeros(2)}, "y must hold whole numbers"),
        ({"x": np.array([object()]), "y": np.zeros(1, int)}, "cannot be read as an .npz"),
    ],
)
def test_bad_npz(tmp_path: Path, content: dict[str, np.ndarray], text: str) -> None:
    np.savez(tmp_path / "a.npz", **content)
    with pytest.raises(SampleError, match=text):
        datasets.load(str(tmp_path / "a.npz"))


def test_npz_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with pytest.raises(SampleError, match="no such file"):
        datasets.load(str(path))
    path.write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(SampleError, match="cannot be read"):
        datasets.load(str(path))
    np.save(tmp_path / "b.npy", np.zeros(3))
    (tmp_path / "b.npy").rename(path)
    with pytest.raises(SampleError, match="holds one array"):
        datasets.load(str(path))


def test_threshold_planes_are_the_comparisons() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    planes = datasets.threshold_planes(images[..., None], levels=(0, 128, 255))
    assert planes.shape == (5, 4, 3, 3)
    assert planes.dtype == np.uint8
    for number, level in enumerate((0, 128, 255)):
        np.testing.assert_array_equal(planes[..., number], images >= level)


@pytest.mark.parametrize(
    ("images", "levels", "text"),
    [
        (np.zeros((2, 4)), (1,), r"images are not grey \(got shape \(2, 4\), float64"),
        (np.zeros((2, 4, 4, 3), np.uint8), (1,), r"got shape \(2, 4, 4, 3\)"),
        (np.zeros((2, 4, 4), np.uint8), (), r"levels are \(\); need one whole number"),
        (np.zeros((2, 4, 4), np.uint8), (0.5,), "need one whole number"),
        (np.zeros((2, 4, 4), np.uint8), "12", "levels are '12'; need one whole number"),
        (np.zeros((2, 4, 4), np.uint8), None, "need one whole number"),
        (np.zeros((2, 4, 4), np.uint8), ((1, 2),), "need one whole number"),
    ],
)
def test_other_planes_are_refused(images: np.ndarray, levels: tuple[float, ...], text: str) -> None:
    with pytest.raises(SampleError, match=text):
        datasets.threshold_planes(images, levels)
