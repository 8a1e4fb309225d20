"""Who is told of which change."""

from cinnabar_scheduler.followers import MAX_FOLLOWED, Follower, Followers
from cinnabar_scheduler.ports import Changed
from cinnabar_scheduler.tasks import Position


def test_a_follower_hears_of_what_it_follows_and_only_of_that() -> None:
    followers, heard = Followers(), list[Changed]()
    follower = Follower(heard.append)
    followers.add(follower)
    assert follower.change(["a", "b", "c"], ["c"])
    position = Position(0, 8)
    followers.tell(Changed(["x"], [position]))
    followers.tell(Changed(["a", "x", "c"], [position]))
    assert heard == [Changed(["a"], [position])]
    assert follower.change([], ["a"])
    followers.tell(Changed(["a"], []))
    followers.remove(follower)
    followers.remove(follower)
    followers.tell(Changed(["b"], []))
    assert len(heard) == 1


def test_nobody_follows_without_bound() -> None:
    follower = Follower(list[Changed]().append)
    assert follower.change((str(number) for number in range(MAX_FOLLOWED)), [])
    assert not follower.change(["one more"], [])
    assert follower.change([], ["one more"])
