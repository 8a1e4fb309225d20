"""Fits the weights of the semantic scorer and writes them into the package: `python fit.py --data DIR`.

Prints the protocol table of `evaluate.py` for the weights it wrote. English and "other" are fitted on the
train split of `saf_en` only, Chinese on the whole of `ads_zh` (it has no other split).
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
from evaluate import (
    USED,
    USED_LEXICAL,
    Sample,
    confidence_data,
    fit_confidence,
    fit_ridge,
    load,
    protocols,
    table,
)

import cinnabar_grader.semantic.weights as weights
from cinnabar_grader.semantic import SemanticScorer
from cinnabar_grader.semantic.encoders import MiniLm, UseM3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder of saf_en.jsonl.gz and ads_zh.jsonl.gz"
    )
    parser.add_argument("--out", type=Path, default=Path(weights.__file__).with_name("weights.json"))
    options = parser.parse_args()
    english_path, chinese_path = options.data / "saf_en.jsonl.gz", options.data / "ads_zh.jsonl.gz"

    minilm, use = MiniLm(threads=1), UseM3()
    with_models = SemanticScorer(english=minilm, multilingual=use)
    english = load(english_path, with_models, scale=1.0)
    chinese = load(chinese_path, with_models, scale=10.0)
    foreign = load(english_path, SemanticScorer(english=use, multilingual=use), scale=1.0)
    words = SemanticScorer(english=None, multilingual=None)
    models = {
        "en": _fitted(english, USED),
        "zh": _fitted(chinese, USED),
        "other": _fitted(foreign, USED),
        "lexical-en": _fitted(load(english_path, words, scale=1.0), USED_LEXICAL),
        "lexical-zh": _fitted(load(chinese_path, words, scale=10.0), USED_LEXICAL),
    }
    content = json.dumps({"version": weights.VERSION, "models": models}, indent=1)
    options.out.write_text(content + "\n", encoding="utf-8")
    sys.stdout.write(
        table(protocols(SemanticScorer(english=minilm, multilingual=use), english, chinese)) + "\n"
    )


def _fitted(sample: Sample, names: tuple[str, ...]) -> dict[str, object]:
    ridge = fit_ridge(sample, sample.train, names)
    inputs, close, _ = confidence_data(sample, names)
    return {
        "names": list(names),
        "coefficients": _rounded(ridge.coefficients),
        "intercept": round(ridge.intercept, 6),
        "low": _rounded(ridge.low),
        "high": _rounded(ridge.high),
        "confidence": _rounded(fit_confidence(inputs, close)),
    }


def _rounded(values: npt.NDArray[np.float64]) -> list[float]:
    return [round(float(value), 6) for value in values]


if __name__ == "__main__":
    main()
