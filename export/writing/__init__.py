"""Files that an export writes beside graphs: words, model cards, results, working copies."""
