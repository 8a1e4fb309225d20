"""What runs in the box with a student's program: begins it, or calls its functions.

These files are sent into the sandbox as text; the grader runs none of them itself. Nothing in them is
secret, and nothing that comes out of them is believed: the student's program shares their process.
"""

from __future__ import annotations

from importlib.resources import files

RUN = files(__name__).joinpath("run.py").read_text("utf-8")
PYTHON = files(__name__).joinpath("call.py").read_text("utf-8")
JAVASCRIPT = files(__name__).joinpath("call.js").read_text("utf-8")
