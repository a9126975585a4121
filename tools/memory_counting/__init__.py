"""What a step will need of a card before any card is touched: memory, operations, seconds."""
