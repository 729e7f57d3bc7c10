"""What `browse` and the doctor show."""
