/* A program that nsrun is to warn about; linked statically, or for another loader. */
int main(void)
{
    return 0;
}
