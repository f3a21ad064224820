"""All topics in order, and the words that do not belong to a topic."""

from __future__ import annotations

from tools.microworld.frames import Frame, Noun, Question, Topic, past, plural_of, present
from tools.microworld.topics_events import CRIME, FINANCE, FOOTBALL, POLITICS
from tools.microworld.topics_world import ARTS, SCIENCE, TRAVEL, WEATHER

__all__ = [
    "CONNECTIVES",
    "DAYS",
    "EMOJI_WORDS",
    "MONTHS",
    "TOPICS",
    "Frame",
    "Noun",
    "Question",
    "Topic",
    "past",
    "plural_of",
    "present",
]

TOPICS = (FOOTBALL, FINANCE, POLITICS, WEATHER, SCIENCE, CRIME, ARTS, TRAVEL)

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
CONNECTIVES = ("and", "but", "while")
EMOJI_WORDS = ("⚽", "🎉", "😀", "👍🏽", "🌧️", "👩‍🔬", "🇫🇷", "❤️")
