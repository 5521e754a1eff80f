"""What `place` and `Placement.from_json` take and refuse."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from tests.hardware.test_place import graded, one_layer
from whetsim.errors import FormatError, SampleError, UnknownNameError, UnsupportedError
from whetsim_hardware.place import Placement, place


@pytest.mark.parametrize("chip", ["loihi", "speck"])
def test_a_placement_knows_its_network(chip: str) -> None:
    net = graded(one_layer(4, 2), 3)
    other = graded(one_layer(4, 3), 3)
    result = place(net, chip, encoding="bitplane")
    assert result.fingerprint == net.graded_fingerprint == net.fingerprint
    assert Placement.from_json(result.to_json()).fingerprint == net.fingerprint
    assert place(other, chip).fingerprint != net.fingerprint
    content = json.loads(result.to_json())
    del content["fingerprint"]
    with pytest.raises(FormatError, match=r"missing key .*fingerprint"):
        Placement.from_json(json.dumps(content))


def test_bad_requests_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'greedy'"):
        place(one_layer(1, 1), "loihi", "greedi")  # type: ignore[arg-type]
    with pytest.raises(UnsupportedError, match="gives no limits of cores"):
        place(one_layer(1, 1), "gpu")


@pytest.mark.parametrize("chip", ["loihi", "truenorth", "speck"])
@pytest.mark.parametrize("bits", [0, -3, 99, "8", 2.0, True, float("nan")])
def test_weight_bits_out_of_range_are_refused(chip: str, bits: Any) -> None:
    with pytest.raises(UnsupportedError, match=r"no such weight_bits \(got .*; need 1\.\.\d+\)"):
        place(one_layer(1, 1), chip, weight_bits=bits)


def test_weight_bits_of_any_whole_kind_are_taken() -> None:
    assert place(one_layer(1, 1), "loihi", weight_bits=np.int64(7)).weight_bits == 8  # type: ignore[arg-type]


@pytest.mark.parametrize("most", ["1", 0, -1, 1.5, True])
def test_max_chips_out_of_range_is_refused(most: Any) -> None:
    with pytest.raises(UnsupportedError, match="max_chips is no number of chips"):
        place(one_layer(1, 1), "loihi", max_chips=most)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -5, "x", None, [1]])
def test_spikes_that_are_no_numbers_are_refused(value: Any) -> None:
    with pytest.raises(SampleError, match="spikes: 'input' has no number of spikes"):
        place(one_layer(1, 1), "loihi", spikes={"input": value, "a": 1.0})
    with pytest.raises(SampleError, match="need a recording, or spikes a sample"):
        place(one_layer(1, 1), "loihi", spikes=[1.0])  # type: ignore[arg-type]


def test_texts_that_are_no_placements_are_refused() -> None:
    for text in ("[]", "{}", "{", '{"format": "whetsim placement 1"}', "null", "[" * 100_000):
        with pytest.raises(FormatError, match="not what Placement"):
            Placement.from_json(text)


BAD_FIELDS: list[tuple[tuple[str | int, ...], Any, str]] = [
    (("n_chips",), "x", "n_chips: got 'x'; need a whole number, at least 1"),
    (("n_chips",), -3, "n_chips: got -3"),
    (("n_chips",), True, "n_chips: got True"),
    (("n_chips",), 10**20, "n_chips: got 1000"),
    (("weight_bits",), 0, "weight_bits: got 0"),
    (("network",), 5, "network: got 5; need a text"),
    (("fingerprint",), None, "fingerprint: got None"),
    (("limits",), None, "limits: got None; need an object"),
    (("limits", "neurons"), "many", r"limits\['neurons'\]: got 'many'"),
    (("splitters",), [1], r"splitters: got \[1\]; need an object"),
    (("synapses",), "x", "synapses: got 'x'"),
    (("hops",), 3, "hops: got 3; need a list"),
    (("hops", 0), ["a", "b"], r"hops\[0\]: .*need source, target and hops"),
    (("hops", 0), [1, "b", 2], r"hops\[0\]: got 1; need a text"),
    (("traffic",), None, "traffic: got None; need a finite number"),
    (("traffic",), float("nan"), "traffic: got nan"),
    (("messages_per_spike", "input"), -1, "messages_per_spike"),
    (("notes",), 5, "notes: got 5; need a list"),
    (("notes", 0), 5, r"notes\[0\]: got 5; need a text"),
    (("cores",), {}, "cores: got {}; need a list"),
    (("cores", 0), 1, r"cores\[0\]: got 1; need an object"),
    (("cores", 0, "x"), 1.5, r"cores\[0\]\.x: got 1.5"),
    (("cores", 0, "used", "neurons"), -1, r"cores\[0\]\.used\['neurons'\]"),
    (("cores", 0, "slices", 0, "population"), None, r"slices\[0\]\.population: got None"),
    (("cores", 0, "slices", 0, "stop"), [1, 1, "x"], r"slices\[0\]\.stop\[2\]: got 'x'"),
    (("cores", 0, "slices", 0, "stop"), [1, 1], r"need height, width and channels"),
    (("cores", 0, "slices", 0, "stop"), [1, 1, 10**9], "need start < stop <= shape"),
    (("cores", 0, "slices", 0, "extra"), 1, r"unknown key cores\[0\]\.slices\[0\]\.'extra'"),
    (("extra",), 1, "unknown key 'extra'"),
]


@pytest.mark.parametrize(("path", "value", "text"), BAD_FIELDS)
def test_fields_of_other_kinds_are_refused(
    path: tuple[str | int, ...], value: Any, text: str
) -> None:
    content = json.loads(place(one_layer(2, 2), "loihi").to_json())
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(FormatError, match=text) as caught:
        Placement.from_json(json.dumps(content))
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("placement: not what Placement.to_json writes (")


def test_a_missing_field_is_refused() -> None:
    content = json.loads(place(one_layer(2, 2), "loihi").to_json())
    del content["cores"][0]["used"]
    with pytest.raises(FormatError, match=r"missing key cores\[0\]\.'used'"):
        Placement.from_json(json.dumps(content))
