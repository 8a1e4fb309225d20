"""A grader for items of the custom kind "word-count": all points for config.words words, a part for fewer."""

from cinnabar_grader.sdk import Given, Score, serve


def grade(given: Given) -> Score:
    wanted = given.config["words"]
    count = len(given.text.split())
    return Score(given.points * min(1, count / wanted), f"{count} of {wanted:g} words.")


if __name__ == "__main__":
    serve("word-count", grade, version="1")
