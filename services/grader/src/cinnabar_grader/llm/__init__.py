"""Free text graded by a language model, with the semantic grader and the rules under it."""
