"""The board: a local web page over the history, live. It only looks; if it is closed, no saga notices."""
