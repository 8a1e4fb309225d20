"""Counters of processes that die are summed over their lives."""

from tests.support.chaos_metrics import Counters

TEXT = """\
# HELP cinnabar_tasks_leased_total Tasks handed to workers.
# TYPE cinnabar_tasks_leased_total counter
cinnabar_tasks_leased_total{queue="text"} 5.0
cinnabar_tasks_leased_total{queue="choice"} 7.0
cinnabar_outcomes_total{fate="already_graded",queue="text"} 2.0
cinnabar_outcomes_total{fate="committed",queue="text"} 1e+03
cinnabar_redis_up 1.0
"""


def test_each_life_counts_once_with_what_was_scraped_last() -> None:
    counters = Counters()
    counters.read("scheduler-0", 1, TEXT)
    counters.read("scheduler-0", 1, TEXT.replace(" 5.0", " 6.0"))
    counters.read("scheduler-0", 2, TEXT)
    counters.read("scheduler-1", 3, "")
    assert counters.total("cinnabar_tasks_leased_total") == 6 + 7 + 5 + 7
    assert counters.total("cinnabar_outcomes_total/already_graded") == 4
    assert counters.total("cinnabar_outcomes_total/committed") == 2000
    assert counters.total("cinnabar_unknown_total") == 0
