"""Quality of documents: annotations, classifiers trained on them, and their skill inside each source."""
