"""Grades programs: tests in a sandbox, a verdict and points for each."""

from cinnabar_grader.code.grader import CodeGrader
from cinnabar_grader.code.item import CodeItem
from cinnabar_grader.code.languages import Language, Toolchain, toolchains

__all__ = ["CodeGrader", "CodeItem", "Language", "Toolchain", "toolchains"]
