"""Pictures that models write: how they are written in segments, and how they are judged."""
