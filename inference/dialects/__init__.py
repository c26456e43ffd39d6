"""How each protocol writes requests, answers and errors."""
