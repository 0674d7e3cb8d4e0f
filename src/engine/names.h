/* Which name the application got an address from, so that a resume can ask for
 * all addresses of that name again. */
#ifndef NS_ENGINE_NAMES_H
#define NS_ENGINE_NAMES_H

#include "core/path.h"

/* Copies the name that last gave `address` to `out` (256 bytes); empty if none. */
void ns_names_find(const struct ns_address *address, char out[256]);

void ns_names_fork_child(void);

#endif
