"""Group commit: everything that is waiting becomes one transaction, and is answered after it.

One wait for the disk then serves all who wait, which is what makes a durable store fast.  Called by `__main__`.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError

from solstice.errors import SolsticeError
from solstice.host import racepoints
from solstice.lifecycle import IllegalMove
from solstice.protocol.lines import Message
from solstice.protocol.store import ErrorKind, Refused, bad_request, parse
from solstice.store.engine import reason
from solstice.store.queries import OPERATIONS

# One message is at fault, and its neighbours are not.  The errors of the database among these leave the transaction
# whole.  Any other may have ended it (SQLite rolls all of it back when the disk is full), and what ran after it would
# be committed by itself: so those fail the group.  These would come again: nobody is to try the message for ever.
_AT_FAULT = (Refused, IllegalMove, IntegrityError, DataError)


def answer(engine: Engine, messages: Sequence[Message]) -> list[Message]:
    """One reply per message, in order, true once returned.  A failing database is an answer, not an exception."""
    try:
        try:
            with engine.begin() as db:
                replies = [_carry_out(db, message) for message in messages]
                racepoints.reach("store.commit.before")
            racepoints.reach("store.commit.after")
            return replies
        except _AT_FAULT:
            # Rare, and a savepoint costs as much as a statement: so each message gets one only now, when it is known
            # that one of them has to be taken back without its neighbours.
            with engine.begin() as db:
                return [_answer_one(db, message) for message in messages]
    except SQLAlchemyError as error:
        return [refusal(message, database_failure(error)) for message in messages]


def _carry_out(db: Connection, message: Message) -> Message:
    """Raises one of `_AT_FAULT` for a message that is to be refused; it may have changed something by then."""
    request = parse(message)
    return {"id": message.get("id"), "ok": True, "result": OPERATIONS[type(request)](db, request)}


def _answer_one(db: Connection, message: Message, again: bool = True) -> Message:
    try:
        with db.begin_nested():
            return _carry_out(db, message)
    except Refused as error:
        return refusal(message, error)
    except IllegalMove as error:
        return refusal(message, Refused(ErrorKind.ILLEGAL_MOVE, error.what, error.why))
    except IntegrityError as error:
        # Another host was first to put the same thing in; by now that can be seen.
        return _answer_one(db, message, again=False) if again else refusal(message, bad_request(reason(error)))
    except DataError as error:
        return refusal(message, bad_request(reason(error)))


def database_failure(error: SQLAlchemyError) -> Refused:
    remedy = "check that the database runs, and the space, the permissions and the health of where it is"
    return Refused(ErrorKind.DATABASE, "the database failed, and nothing was changed", reason(error), remedy)


def refusal(message: Message, error: SolsticeError) -> Message:
    """The reply to a message that is not carried out."""
    kind = error.kind if isinstance(error, Refused) else ErrorKind.DATABASE
    return {"id": message.get("id"), "ok": False, "error": str(error), "kind": kind}
