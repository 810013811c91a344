"""Remote configuration: accepted when newer, journalled, applied while the agent runs."""
