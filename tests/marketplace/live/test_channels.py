from __future__ import annotations

import pytest
from django.contrib.auth.models import AnonymousUser

from marketplace.accounts.models import User
from marketplace.live import channels


def test_it_works():
    assert channels.may_listen(User(username="ann"), "mine:ann")
    assert not channels.may_listen(User(username="bob"), "mine:ann")
    assert not channels.may_listen(AnonymousUser(), "mine:ann")


@pytest.mark.parametrize("channel", ["", "room", "room:", ":1", "nobody:1", "ROOM:1"])
def test_a_channel_that_no_app_registered_does_not_exist(channel):
    assert not channels.may_listen(AnonymousUser(), channel)


def test_the_key_may_hold_colons():
    channels.register("deep", lambda user, key: key == "a:b")
    assert channels.may_listen(AnonymousUser(), "deep:a:b")


def test_jobs_have_a_channel():
    assert "job" in channels._deciders
