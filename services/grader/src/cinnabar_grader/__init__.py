"""The grader service: takes tasks from the scheduler's worker stream, grades them, reports grades."""
