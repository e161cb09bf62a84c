"""The odd-one-out game, without its looks: which trials are shown, what was answered, what it proves."""

from ldm_kit.game.answers import Consistency, agreement_table, choices_so_far, describe_agreement
from ldm_kit.game.game import PLAYERS, Feedback, Game, Session, autoplay, new_game
from ldm_kit.game.trials import CandidateSets, candidate_sets

__all__ = [
    "PLAYERS",
    "CandidateSets",
    "Consistency",
    "Feedback",
    "Game",
    "Session",
    "agreement_table",
    "autoplay",
    "candidate_sets",
    "choices_so_far",
    "describe_agreement",
    "new_game",
]
