"""What is kept of a run: its folder, its row, its protocol checks, and how each is made again."""
