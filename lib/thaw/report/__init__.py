"""From the records to tables, figures, sentences, and the exported report."""
