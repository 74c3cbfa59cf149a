"""What is seen when in a video: moments hop by hop, and events from them."""
