"""From a retrieval set and an encoder to rankings, metrics, scores and a report."""
