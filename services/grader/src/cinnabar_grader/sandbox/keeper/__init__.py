"""The keeper: a small process beside the grader that makes boxes and watches over them.

It is apart from the grader because a process with threads and a model in memory is slow and unsafe to
fork, because boxes die with it by the kernel's doing, and because a flood of output is its problem alone.
"""
