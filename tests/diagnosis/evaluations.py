"""The diagnosis of an evaluation alone, for the tests."""

from __future__ import annotations

from sourcewise.diagnosis.answer import Diagnosis, Piece
from sourcewise.diagnosis.course import Course
from sourcewise.diagnosis.pairs import Pairs
from sourcewise.diagnosis.ranking import put_together
from sourcewise.diagnosis.rules import absent
from sourcewise.diagnosis.trained import Trained
from sourcewise.diagnosis.whole import of_evaluation
from sourcewise.diagnosis.wiring import Wiring
from sourcewise.evaluation.results import Evaluation


def diagnose_evaluation(evaluation: Evaluation) -> Diagnosis:
    """Every rule that needs no more than an evaluation."""
    unseen = [absent(each, "it takes more than outputs") for each in (Pairs, Wiring, Course, Trained)]
    return put_together([of_evaluation(evaluation), Piece((), unseen)])
