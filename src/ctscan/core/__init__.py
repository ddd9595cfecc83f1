"""Hold what every stage needs: parameters, errors, random numbers, files, and running and resuming a stage."""
