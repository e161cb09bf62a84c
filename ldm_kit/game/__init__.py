"""The odd-one-out game, without its looks: which trials are shown, what was answered, what it proves."""

from ldm_kit.game.answers import AnswerFile, choices_so_far
from ldm_kit.game.scoring import Consistency, agreement_table, consistency, trials_said
from ldm_kit.game.session import Feedback, Game, Session, new_game
from ldm_kit.game.sets import JudgedSets, candidate_sets
from ldm_kit.game.simulated import PLAYERS, autoplay
from ldm_kit.game.trials import Trial, plan_trials

__all__ = [
    "PLAYERS",
    "AnswerFile",
    "Consistency",
    "Feedback",
    "Game",
    "JudgedSets",
    "Session",
    "Trial",
    "agreement_table",
    "autoplay",
    "candidate_sets",
    "choices_so_far",
    "consistency",
    "new_game",
    "plan_trials",
    "trials_said",
]
