/* A library that defines nothing. */
extern int nothing;
