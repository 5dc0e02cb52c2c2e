"""Group commit: everything that is waiting becomes one transaction, and is answered after it.

One wait for the disk then serves all who wait, which is what makes a durable store fast.  Called by `__main__`.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError

from solstice.errors import SolsticeError
from solstice.lifecycle import IllegalMove
from solstice.protocol.lines import Message
from solstice.protocol.store import ErrorKind, Refused, bad_request, parse
from solstice.store.engine import reason
from solstice.store.queries import OPERATIONS


def answer(engine: Engine, messages: Sequence[Message]) -> list[Message]:
    """One reply per message, in order, true once returned.  A failing database is an answer, not an exception."""
    try:
        with engine.begin() as db:
            replies = [_answer_one(db, message) for message in messages]
    except SQLAlchemyError as error:
        return [refusal(message, database_failure(error)) for message in messages]
    return replies


def _answer_one(db: Connection, message: Message) -> Message:
    try:
        request = parse(message)
        with db.begin_nested():
            result = OPERATIONS[type(request)](db, request)
    except Refused as error:
        return refusal(message, error)
    except IllegalMove as error:
        return refusal(message, Refused(ErrorKind.ILLEGAL_MOVE, error.what, error.why))
    except (IntegrityError, DataError) as error:
        # These leave the transaction whole.  Any other error may have ended it (SQLite rolls all of it back when the
        # disk is full), and what ran after it would be committed by itself: so those fail the group, in `answer`.
        # The same statement would fail again: the request is at fault, and nobody is to try it for ever.
        return refusal(message, bad_request(reason(error)))
    return {"id": message.get("id"), "ok": True, "result": result}


def database_failure(error: SQLAlchemyError) -> Refused:
    remedy = "check the space, the permissions and the health of where the database is"
    return Refused(ErrorKind.DATABASE, "the database failed, and nothing was changed", reason(error), remedy)


def refusal(message: Message, error: SolsticeError) -> Message:
    """The reply to a message that is not carried out."""
    kind = error.kind if isinstance(error, Refused) else ErrorKind.DATABASE
    return {"id": message.get("id"), "ok": False, "error": str(error), "kind": kind}
