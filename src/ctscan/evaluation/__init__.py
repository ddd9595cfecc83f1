"""What is measured on the test images, and what it is compared with."""
