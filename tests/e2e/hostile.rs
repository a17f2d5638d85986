//! Objects, statuses and messages that nobody would write in good faith: each costs itself alone.
