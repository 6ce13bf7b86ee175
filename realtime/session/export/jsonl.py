"""The estimates as they were published, rebuilt from the recorded numbers."""

from __future__ import annotations

from typing import IO

from dhmd.session import Session, schema
from realtime.session.messages import estimate_of


def write(session: Session, file: IO[bytes]) -> None:
    for record in session.records([schema.ESTIMATE, schema.PERSON_ESTIMATE]):
        file.write(estimate_of(record.message, session).model_dump_json().encode() + b"\n")
