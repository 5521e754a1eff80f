"""Data sets to run networks on: digits, MNIST, Fashion-MNIST, or arrays from an .npz file."""

from __future__ import annotations

import gzip
import hashlib
import os
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from whetsim.errors import (
    BackendNotInstalledError,
    SampleError,
    UnknownNameError,
    did_you_mean,
    install_line,
)

__all__ = ["NAMES", "load", "load_npz", "threshold_planes"]

Split = Literal["train", "test"]
NAMES = ("digits", "mnist", "fashion-mnist")
ENVIRONMENT = "WHETSIM_DATA"
N_DIGITS_TRAIN = 1437
"""Of the 1,797 digits, the first 1,437 (80 %) are for training, the last 360 for testing."""


@dataclass(frozen=True)
class _Source:
    url: str
    md5: Mapping[str, str]


_FILES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
_MNIST_MD5 = (
    "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "d53e105ee54ea40749a09fcbcd1e9432",
    "9fb629c4189551a2d022fa330f9573f3",
    "ec29112dd5afa0611ce80d1b7f02629c",
)
_FASHION_MD5 = (
    "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "25c81989df183df01b3e8a0aad5dffbe",
    "bef4ecab320f06d8554ea6380940ec79",
    "bb300cfdad3c16e7a12a480ee83cd310",
)
_ALL_FILES = (*_FILES["train"], *_FILES["test"])
_SOURCES = {
    "mnist": _Source(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        dict(zip(_ALL_FILES, _MNIST_MD5, strict=True)),
    ),
    "fashion-mnist": _Source(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        dict(zip(_ALL_FILES, _FASHION_MD5, strict=True)),
    ),
}


def load(
    name: str | os.PathLike[str],
    *,
    split: Split = "test",
    data_dir: str | os.PathLike[str] | None = None,
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return images and labels of a data set.

    Parameters
    ----------
    name : str or path
        ``digits`` (8 x 8, 0..16, comes with scikit-learn), ``mnist`` or ``fashion-mnist``
        (28 x 28, 0..255), or the path of an .npz file with arrays x and y.
    split : str
        ``test`` or ``train``; an .npz file has no splits.
    data_dir : path, optional
        Folder that holds the original files, or a folder ``mnist`` or ``fashion-mnist`` with them.
        By default the folder that the environment variable WHETSIM_DATA names; without it files
        are downloaded, checked and cached.

    Returns
    -------
    images : integer array (n_samples, ...)
    labels : int64 array (n_samples,)

    Raises
    ------
    UnknownNameError
        If there is no such data set.
    SampleError
        If a file is missing, damaged, or not what its checksum says.
    BackendNotInstalledError
        If scikit-learn or pooch is needed and missing.
    """
    name = os.fspath(name)
    if split not in _FILES:
        raise SampleError(f"data: no split {split!r}; there are: train, test.")
    if name == "digits":
        return _digits(split)
    if name in _SOURCES:
        folder = data_dir or os.environ.get(ENVIRONMENT)
        paths = _find(name, split, Path(folder)) if folder else _download(name, split)
        images = _read_idx(paths[0], 3, _SOURCES[name].md5[paths[0].name])
        labels = _read_idx(paths[1], 1, _SOURCES[name].md5[paths[1].name])
        return images, labels.astype(np.int64)
    if name.endswith(".npz"):
        return load_npz(name)
    raise UnknownNameError(
        f"no data set named {name!r}; there are: {', '.join(NAMES)}, or the path of an .npz file "
        f"with x and y.{did_you_mean(name, NAMES)}"
    )


def threshold_planes(images: ArrayLike, levels: Sequence[int]) -> NDArray[np.uint8]:
    """Return images as binary planes, one for each level: 1 where the pixel is >= the level.

    For networks that read nothing but spikes: one level is one spike per bright pixel, several
    levels keep some of the grey.

    Parameters
    ----------
    images : array of int, shape (n_samples, rows, columns) or (n_samples, rows, columns, 1)
    levels : sequence of int
        At least one.

    Returns
    -------
    ndarray of uint8, shape (n_samples, rows, columns, n_levels)

    Raises
    ------
    SampleError
        If the images have another shape or kind, or there is no level.

    Examples
    --------
    >>> threshold_planes([[[0, 100, 200]]], levels=(50, 150)).tolist()
    [[[[0, 0], [1, 0], [1, 1]]]]
    """
    grey = np.asarray(images)
    if grey.ndim == 4 and grey.shape[3] == 1:
        grey = grey[..., 0]
    if grey.ndim != 3 or grey.dtype.kind not in "ui":
        raise SampleError(
            f"threshold_planes: images are not grey (got shape {grey.shape}, {grey.dtype}; need "
            "whole numbers, (n_samples, rows, columns))."
        )
    numbers = np.atleast_1d(np.asarray(levels, dtype=object))
    whole = all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) for n in numbers)
    if numbers.ndim != 1 or not numbers.size or not whole:
        raise SampleError(
            f"threshold_planes: levels are {levels!r}; need one whole number or more."
        )
    return np.stack([grey >= int(n) for n in numbers], axis=-1).astype(np.uint8)


def load_npz(path: str | os.PathLike[str]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return arrays x ``(n_samples, ...)`` and y ``(n_samples,)`` of an .npz file.

    Raises
    ------
    SampleError
        If the file is missing, damaged, holds Python objects, or lacks x or y.
    """
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise SampleError(f"{path}: holds one array; need an .npz file with x and y.")
        with archive:
            missing = [key for key in ("x", "y") if key not in archive]
            if missing:
                found = ", ".join(archive.files) or "nothing"
                raise SampleError(f"{path}: array {missing[0]!r} is missing (found: {found}).")
            images, labels = archive["x"], archive["y"]
    except SampleError:
        raise
    except FileNotFoundError:
        raise SampleError(f"{path}: no such file.") from None
    except (OSError, ValueError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SampleError(f"{path}: cannot be read as an .npz file ({reason}).") from None
    if labels.ndim != 1 or images.ndim < 1 or len(labels) != len(images):
        raise SampleError(
            f"{path}: x has shape {images.shape} and y {labels.shape}; need one label a sample."
        )
    if labels.dtype.kind not in "bui":
        raise SampleError(f"{path}: y must hold whole numbers (got {labels.dtype}).")
    return images, labels.astype(np.int64)


def _digits(split: Split) -> tuple[NDArray[Any], NDArray[np.int64]]:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise BackendNotInstalledError(
            f"data 'digits': scikit-learn is not installed. Install it: {install_line('digits')}"
        ) from None
    bunch = load_digits()
    part = slice(None, N_DIGITS_TRAIN) if split == "train" else slice(N_DIGITS_TRAIN, None)
    return bunch.images[part].astype(np.uint8), bunch.target[part].astype(np.int64)


def _find(name: str, split: Split, folder: Path) -> tuple[Path, Path]:
    images, labels = _FILES[split]
    for place in (folder / name, folder):
        if (place / images).is_file() and (place / labels).is_file():
            return place / images, place / labels
    raise SampleError(
        f"data {name!r}: {folder} has no {images} and {labels}, nor has its folder {name}. Name "
        f"another folder with --data-dir or {ENVIRONMENT}, or none to download them."
    )


def _download(name: str, split: Split) -> tuple[Path, Path]:
    try:
        import pooch
    except ImportError:
        raise BackendNotInstalledError(
            f"data {name!r}: pooch is not installed, which downloads and checks files. Install it: "
            f"{install_line('download')}; or name a folder with --data-dir or {ENVIRONMENT}."
        ) from None
    source = _SOURCES[name]
    pooch.get_logger().setLevel("WARNING")
    store = pooch.create(
        path=pooch.os_cache("whetsim") / name,
        base_url=source.url,
        registry={file: f"md5:{md5}" for file, md5 in source.md5.items()},
    )
    try:
        images, labels = (Path(store.fetch(file)) for file in _FILES[split])
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SampleError(
            f"data {name!r}: download from {source.url} failed ({reason[:200]}). Try again, or "
            f"name a folder that has the files with --data-dir or {ENVIRONMENT}."
        ) from None
    return images, labels


def _read_idx(path: Path, n_axes: int, md5: str) -> NDArray[np.uint8]:
    """Read a gzipped idx file of bytes: two zeros, type 8, number of axes, sizes, values."""
    try:
        packed = path.read_bytes()
    except OSError as error:
        raise SampleError(f"{path}: cannot be read ({error.strerror}).") from None
    found = hashlib.md5(packed, usedforsecurity=False).hexdigest()
    if found != md5:
        raise SampleError(
            f"{path}: the MD5 checksum is {found} (need {md5}). The file is cut off or another one."
        )
    data = gzip.decompress(packed)
    sizes = struct.unpack(f">{n_axes}I", data[4 : 4 + 4 * n_axes])
    values = np.frombuffer(data, dtype=np.uint8, offset=4 + 4 * n_axes)
    return values.reshape(sizes)
