"""What pictures and videos that we write are made with: letters, and mp4 files."""
