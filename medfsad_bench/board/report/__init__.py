"""What is handed over of a run, or of a comparison: one page that needs no other file and no network."""
