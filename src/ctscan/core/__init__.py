"""What every stage rests on: parameters, errors, random numbers, files, running and resuming."""
