"""What a folder of videos is: its videos, classes and splits, from its folders or its list files."""
