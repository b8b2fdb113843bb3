"""A page stays alive and right on every network, in a real browser at the deployed product."""

from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import expect

from tests.test_browser import Person


@pytest.fixture
def ada(page, stack):
    return Person(page).is_signed_up(stack.signup())


# A browser with another clock.


@pytest.mark.parametrize("hours", [-3, 3])
def test_times_are_told_by_the_servers_clock(ada, hours):
    ada.page.clock.install(time=datetime.now(UTC) + timedelta(hours=hours))
    ada.begin("Hello")
    ada.wait_for("complete")
    ada.page.clock.run_for("01:10:00")
    for time in ada.page.locator("#messages time").all():
        expect(time).to_have_text("an hour ago")
