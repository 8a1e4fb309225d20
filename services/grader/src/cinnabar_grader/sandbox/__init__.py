"""Runs programs that nobody trusts.

A `Sandbox` gives folders; a folder runs programs over its files, each run in a box of its own with
limits, and says how it ended. `choose` opens the best sandbox that works on the machine.
"""

from cinnabar_grader.sandbox.choosing import NoSandbox, choose
from cinnabar_grader.sandbox.runs import Ending, Folder, Limits, Run, Sandbox

__all__ = ["Ending", "Folder", "Limits", "NoSandbox", "Run", "Sandbox", "choose"]
