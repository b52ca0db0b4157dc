// Package webhook is how the API server reaches an admission handler: a TLS server that is
// bounded everywhere and loses no review when it ends, and the certificates that it shows.
//
// Certificates are made here (Keeper) or given as files (Files). Those that are made are in
// one Secret, which all replicas watch. There is no leader for it: whoever finds that
// something is due writes what comes next, and the API server takes it only from a replica
// that has seen the newest (resourceVersion). A hung or lost leader could not keep a
// certificate from being renewed, and nothing is served by one replica that another does
// not know.
//
// What clients believe is always ahead of what is shown: a new authority is in the bundle,
// beside the old, for Schedule.Overlap before it signs anything, and the old one stays for
// Schedule.Retire after its last certificate. A replica that shows a certificate keeps showing
// it until the next one is believed.
package webhook
