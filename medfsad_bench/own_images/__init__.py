"""Which of a user's own new images are unlike K normal ones, where, and what is handed over of it? No labels."""
