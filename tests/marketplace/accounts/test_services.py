from __future__ import annotations

import threading

import pytest
from django.db import connection

from marketplace.accounts.models import ApiToken, User
from marketplace.accounts.services import (
    MAX_TOKENS,
    AccountError,
    MailAway,
    create_account,
    issue_token,
    request_reset,
)
from tests.factories import make_user


@pytest.mark.django_db
def test_it_works():
    user = create_account(User(username="ann"))
    token, text = issue_token(user, name="laptop", scope="read", days=1)
    assert token.matches(text.rpartition("_")[2])


@pytest.mark.django_db
@pytest.mark.parametrize("taken", ["ann", "ANN"])
def test_whoever_comes_second_hears_that_the_name_is_taken(taken):
    create_account(User(username="ann"))
    with pytest.raises(AccountError) as caught:
        create_account(User(username=taken))
    assert list(caught.value.problems) == ["username"]
    assert User.objects.count() == 1


def run_at_once(count: int, act) -> list[Exception | None]:
    barrier = threading.Barrier(count)
    results: list[Exception | None] = []

    def run(number: int) -> None:
        barrier.wait()
        try:
            act(number)
        except Exception as error:
            results.append(error)
        else:
            results.append(None)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.mark.django_db(transaction=True)
def test_parallel_requests_do_not_pass_the_most():
    user = make_user()
    for number in range(MAX_TOKENS - 2):
        issue_token(user, name=f"token {number}", scope="read", days=1)
    results = run_at_once(
        6, lambda number: issue_token(user, name=f"late {number}", scope="read", days=1)
    )
    assert results.count(None) == 2
    assert all(isinstance(result, AccountError) for result in results if result)
    assert ApiToken.objects.count() == MAX_TOKENS


@pytest.mark.django_db(transaction=True)
def test_of_parallel_sign_ups_for_a_name_one_wins():
    results = run_at_once(
        6, lambda number: create_account(User(username="Ann" if number % 2 else "ann"))
    )
    assert results.count(None) == 1
    assert all(isinstance(result, AccountError) for result in results if result)


def test_a_queue_that_does_not_answer_is_told(monkeypatch):
    from kombu.exceptions import OperationalError

    from marketplace.accounts import tasks

    def refuse(email: str) -> None:
        raise OperationalError("nobody there")

    monkeypatch.setattr(tasks.send_reset_mail, "delay", refuse)
    with pytest.raises(MailAway):
        request_reset("ann@example.org")
