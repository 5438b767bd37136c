/* The supervisor: speaks JSON lines on standard input and output, and keeps one worker process per candidate. */
#pragma once

namespace edgewright {

/* Answer requests until `bye` or the end of the input. */
int supervise();

}  // namespace edgewright
