"""Worker processes, for graders that use a CPU.

`child` is what runs in one, `worker_process` the other end of it; `process_pool` keeps as many as there
should be, `lane` gives them the tasks of a stream.
"""
