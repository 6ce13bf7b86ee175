"""The recorded sessions of tests/realtime/session, for the commands that take one."""

from tests.realtime.session.conftest import (  # noqa: F401 - fixtures
    estimate_fixture,
    hostile,
    made,
    made_session,
    make,
    recorded,
)
