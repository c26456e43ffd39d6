"""How a row divides calls: the canaries that it has places for, and what must hold."""
