"""Several runs that are compared: studies, leaderboards, tuning. Every run in them is an ordinary run."""
